"""What is wrong with a LeRobotDataset of an SO-100 or SO-101 arm, before anybody trains on it."""
