"""What runs within the walls: the standard library only.

These files are sent to the new process as text or compiled; it never imports them from here. Nor do they import
`typing`, which would be a tenth of what a short program costs.
"""
