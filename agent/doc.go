// Package agent is the contract of one node: what a job's life consists of (State, Life), what is told of a job (Job), of the
// node (Status) and of what happens (Event), and what can be asked of a node (Node).
//
// A node takes signed documents, admits what its policy allows, runs it confined, checks the result, and leaves a
// decision in its ledger for each step that somebody might ask about later. The packages below do that: policy and admission judge,
// scheduler chooses, executor runs and remembers, validation judges results, archive keeps what replaying needs, control
// lets people and programs talk to the node.
//
// The package holds types and the table of a job's life, nothing that acts: it opens no file, reads no clock, starts nothing.
// Its JSON forms are what the control API serves; they only ever gain members.
package agent
