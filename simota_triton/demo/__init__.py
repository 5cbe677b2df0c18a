"""The demo: COCO annotations in, simulated predictions, assignments out as tables and pictures. Not imported
by the library.
"""
