package control

// Routes lists every resource with its method.
func Routes() []string {
	var names []string
	for _, r := range (&Server{}).table() {
		names = append(names, r.method+" "+r.path)
	}
	return names
}
