// Package admission decides whether a job may run on this node, before anything that it names is fetched.
//
// Judge is a pure function: a proposal, the policy in force, facts, what is known of replays, and the time go in; a Verdict
// comes out, with every reason against the job and what would have to change, or with what it may use and what must be proven
// of its image and inputs. The same input gives the same bytes (Verdict.Canonical) on every node. When the content has come,
// Attested compares what was demanded with what a verification found; it is pure, too.
//
// It reads no clock, no file and no network, remembers nothing, and starts nothing.
package admission
