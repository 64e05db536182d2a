"""Machines that are reached over ssh: commands, logins, and work directories that are mirrored."""
