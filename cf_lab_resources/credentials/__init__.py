"""Content Credentials (C2PA): signing keys, signed pictures, and verifying them.

`keys` finds or makes the key, `pictures` signs and reads pictures. What is claimed of a picture
is known to whoever has it signed. No time stamp authority is asked: that would need a network.
"""
