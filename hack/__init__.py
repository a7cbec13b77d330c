"""Tools of this repository: the local cluster, the images, the demo. Never imported by the product."""
