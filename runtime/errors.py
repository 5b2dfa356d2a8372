"""What can go wrong for a user. Each message says what, where, and what mends it; commands exit with code 2."""


class GconetError(Exception):
    """Base of every error a user can mend. Its message is one line."""


class UsageError(GconetError):
    """An argument that makes no sense."""


class PhotoError(GconetError):
    """A photo, or a folder of photos, that cannot be used."""


class CheckpointError(GconetError):
    """A file that is not a GCoNet checkpoint, or one of another architecture."""


class BundleError(GconetError):
    """A bundle that is missing, incomplete, altered, or from a newer version."""


class ConsensusError(GconetError):
    """A file that is not a consensus, or one that another network made."""


class TargetError(GconetError):
    """An engine that cannot be built or run on this machine."""


def one_line(error: BaseException) -> str:
    """What a library's error says: its first line that is not empty, at most 200 characters; else its type's name."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
