"""Published numbers and the board of results."""

if __name__ != "evalkit.leaderboard":
    raise ImportError(f"{__name__} is evalkit's folder: import evalkit.leaderboard instead")
