"""One file per `evalkit COMMAND`, named as it is typed: reads its arguments, calls the library, prints."""
