// Package nodetest says what every agent.Node must do: Test is the one suite that each of them passes, the real one and the one
// here. Memory is a whole node that forgets everything when it ends: it walks the table of agent.Life, keeps logs and events, and
// leaves what a job does to a function. It is for tests of what talks to a node.
package nodetest
