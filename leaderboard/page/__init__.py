"""The leaderboard as one html file: its data, its layout (page.html, page.css) and its behavior (scripts/)."""
