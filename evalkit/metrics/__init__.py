"""(predictions, targets) -> scores, their bootstrap intervals and significance; text/ for captions and answers."""
