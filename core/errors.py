"""What went wrong and a user can mend: one sentence, and from a command exit code 2."""


class InputError(Exception):
    """Something that the user can mend, said in one sentence."""
