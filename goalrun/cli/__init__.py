"""The command line. Modules here that declare commands import nothing slow; the bodies do."""
