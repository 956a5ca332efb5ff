"""What runs within the walls: the standard library only.

These files are sent to the new process as source; it never imports them from here.
"""
