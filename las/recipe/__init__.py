DEFAULT_MODEL = "digits"  # of those that ship: what transcribes where no other is named
