"""Images from the web: politely, safely, and so that a crawl can be taken up where it was broken
off.
"""
