"""Goals as web pages: from records to a frozen page, and from that to HTML. Pure but for the templates beside it."""
