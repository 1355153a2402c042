"""What tests share: a running dtr, a small client of the registry API, and builders of images."""
