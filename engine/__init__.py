"""What a run needs around the method. Each folder imports those above it in this list only: `process`, `features`,
`command_line`, `results`, `training`, `evaluation`, `methods`, `pictures`, `tagging`, `report`; `captioning` stands
beside them.
"""
