"""The closed lists of what is said of a film or a knee beside its grades, with the words that people read."""

REASONS = {
    "no_knee_like_region": "no knee-like region found",
    "low_score": "rejected: the detector was not sure",
    "implausible_key_points": "rejected: implausible key points",
    "implausible_size": "rejected: implausible size",
    "upside_down": "rejected: the film is upside down",
    "rotated": "rejected: the knee, or the whole film, is turned",
    "cut_off": "rejected: the edge of the film cuts the joint",
    "implant": "rejected: metal fills the joint, as after a knee replacement",
    "not_frontal": "the file says that the view is not frontal",
}
FILM_WARNINGS = {
    "polarity_overridden": "knees were found on the inverted film only",
    "laterality_conflict": "the side that is named contradicts the film",
    "side_doubtful": "the knees look like those of the other side, or a marker says so: wrong tag, or mirrored?",
    "clipped_histogram": "over- or underexposed: contrast is lost in the joint",
    "not_frontal": "the file says that the view is not frontal",
    "growth_plates": "the growth plates look open: there is no KL grade of a child's knee",
}
KNEE_WARNINGS = {
    "oa_kl_disagree": "OA and KL contradict each other",
    "kl_features_disagree": "KL and the six features contradict each other",
    "compartment_grades_withheld": "side unknown: compartment grades withheld",
}
WORDS = REASONS | FILM_WARNINGS | KNEE_WARNINGS
