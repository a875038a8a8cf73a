package manifest

// Quantity is a Kubernetes quantity, such as "4", "500m", "8Gi" or "1G", in the spelling of its author.
type Quantity string
