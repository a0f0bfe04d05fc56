"""The leaderboard as one html file: what is in it, what it looks like (page.html, page.css) and does (scripts/)."""
