// Package content gets what a Job document pins, so that package runner/job can derive its confinement, and names and checks what
// the job left. The command line and a node both do it with this package, so that a document runs on the same bytes
// everywhere.
//
// It promises that nothing is used which is not what its pin says: what builder/source and runner/closure promise. It never
// decides who may run what, and runs nothing.
package content
