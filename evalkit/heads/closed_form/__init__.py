"""Closed-form probes on frozen features, for a whole grid at once: ridge, logistic regression, nearest neighbors.

    points = logistic(train, labels, [0.01, 0.1, 1.0], classes=50)
    best = (points.predict(val) == val_labels).double().mean(1).argmax()   # the caller chooses, on val
    scores = points.scores(test, best)

Features are (N, D), float, on any device, and are taken as they are, so that every point equals scikit-learn's
estimator on the same numbers. What a lambda or a C means depends on their scale: standardize them with the mean and
deviation of the training examples, or scale each to length 1, before you fix a grid.

Targets are (N,) class indices, int64, or (N, T) columns: 0 and 1, several of which may be 1 (multi-label); for ridge
any finite numbers. Nothing of size grid x N x classes is ever made: scores are given one point at a time.
"""
