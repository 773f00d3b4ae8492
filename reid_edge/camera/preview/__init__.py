"""Show what a camera saw: one page, and a video, of what became of every box; nothing is published."""
