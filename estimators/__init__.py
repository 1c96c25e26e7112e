"""The estimators of our own that a published model may contain; a notebook may use them, too.

They need numpy and scikit-learn alone, with the threadpoolctl that it requires, and stand in the
image of each service that trains or serves models: a pickle names its classes, and whoever loads it
must have them.
"""
