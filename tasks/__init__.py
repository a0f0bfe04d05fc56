"""One file per benchmark: its data, metrics and protocol."""

if __name__ != "evalkit.tasks":
    raise ImportError(f"{__name__} is evalkit's folder: import evalkit.tasks instead")
