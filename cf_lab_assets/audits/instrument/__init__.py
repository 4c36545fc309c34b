"""The instrument, which is editor, filter and scorers: is it even enough to audit others with?"""
