// Package node puts the parts of one node together: the policy that it judges by, the window against replays, the ledger, the
// store, and the engine that takes jobs through their life. Commands choose what is different on each machine (keys, files,
// what confines jobs, who may talk to it) and hand it in.
//
// # What is in the state directory
//
//	executor/      records of jobs, what they printed           agent/executor
//	store/         content and outputs, by digest               builder/store
//	images/        unpacked images, which can be made again
//	ledger/        the log's tiles, which anybody may read      attest/ledger
//	signed/        what of the log was signed last, and of others cosigned: it must not be restored together with the log
//	witnesses      what the witnesses of the log said
//	policy/        the newest policy and trust root that were in force, and the newest known time
//	replay         nonces that are spent
//
// It decides nothing and holds no private key but what it was given.
package node
