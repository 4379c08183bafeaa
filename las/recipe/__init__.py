"""What the verbs do, from configs and files: the library's parts put together."""

DEFAULT_MODEL = "english"  # of those that ship: what transcribes where no other is named
