"""The form of a flow file as a JSON Schema, for editors; ``goalrun flow check`` knows more than that."""

from typing import Any

from goalrun.core.flow.model import Flow
from goalrun.flows.parse import DRAFT


def flow_schema() -> dict[str, Any]:
    """The schema: the model, in the words of a file."""
    schema = Flow.model_json_schema(by_alias=True)
    flow = schema["$defs"]["Flow"]
    keys = {name: key for name, key in flow["properties"].items() if name not in {"source", "code"}}
    flow["properties"] = {"step" if name == "steps" else name: key for name, key in keys.items()}
    # A file is called by its name.
    flow["required"] = ["step"]
    return {"$schema": DRAFT, "title": "A flow of goalrun", **schema}
