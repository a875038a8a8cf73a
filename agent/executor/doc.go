// Package executor is the engine of one node: it takes jobs through their life, from a signed document that is handed in to an
// archive entry, remembers all of it, and survives being killed at any instant. It implements agent.Node.
//
// It decides nothing that another package decides: a Judge says which jobs may run, package scheduler which one is next, package
// validation whether a result holds. A Source fetches, a Driver runs, a Recorder keeps the ledger, a store.Store keeps content.
//
// # What is on disk
//
//	journal.0, journal.1              what was changed last, until it is in state.db (attest/ledger/journal)
//	state.db                          records, envelopes, statements, short logs, and how many jobs need each object of the store (bbolt)
//	logs/NUMBER-ATTEMPT.STREAM        what an execution printed, if it is more than 16 KiB
//	the store                         content and outputs, with one root for each object that a job or an archive entry needs
//	the ledger                        every decision
//
// Statements and short logs are in state.db and not in the store, because they share its commits: a file of its own would cost each
// job several waits for the disk. A commit is one write to the journal, which is one wait for the disk; what it changes is found in memory from then
// on, and gets into state.db with everything else of about a quarter of a second, or when the state is opened again.
//
// # Crash safety
//
// A step of a job's life is taken in this order, and in no other:
//
//  1. agent.Step says that there is such a step.
//  2. Objects of the store that the new record names get their roots. After a crash here, there are roots too many: Open removes them.
//  3. The decision is in the ledger, durable. After a crash here, the ledger has a decision that had no effect; the step is taken again and is
//     in the ledger a second time.
//  4. The record with the new state, and everything that belongs to it, is committed to the journal: the envelope with the proposal, the
//     statements and logs with the end of an execution. Many jobs share one commit, and so one wait for the disk.
//  5. Only now can anybody see the new state, does an event tell of it, and is anything done because of it: nothing is
//     fetched before "placed" is on disk, nothing is started before "running" is, with the name that the execution will have.
//
// Steps between which nothing happens are one commit, and their decisions one entry of the ledger: proposed and verified; placed and running,
// where everything that the job pins is in the store already; all four, where besides no job waits and there is room for it; validating,
// anchored and archived, where everything that the archive keeps is.
//
// After a crash, Open puts what waited back into the queue, and Run goes on with the rest:
//
//   - placed: nothing of it ran; it waits again.
//   - running: the Driver is asked for the execution of that name. If it is there, it is followed to its end. If not, nobody knows how
//     far it came: the attempt is closed as unfinished, in the ledger, and tried again only if the document's retries allow it.
//   - validating, anchored: what is missing is done.
//   - Executions that the Driver has and no record wants are ended.
//
// So a job that was accepted is never lost, and never runs twice without the ledger saying so. A write that fails is tried again until
// the disk or the ledger takes it: the job stands still meanwhile, and Status says so. What was handed in when nothing could be
// written is an error of Submit, and nothing is kept of it.
//
// # Retention
//
// What the policy in force when a job ended says of its retention is removed when its time is over: outputs, logs, the archive entry. Of a job
// that was refused, failed or was cancelled, everything goes but one line: its name, how it ended, and where the decision is in the
// ledger, from which nothing is ever removed.
//
// # Retries
//
// Only an execution that could not be finished is tried again: its confinement could not be made, or the node ended. A program that
// failed, a limit that was reached, a result that is not the expected one: never.
//
// # Bounds
//
// Memory holds about 250 bytes for each job that waits, the records of jobs that are worked at, of which there are no more than slots,
// 16 KiB of each of their logs, the last events, and up to some 24 MiB of what is not in state.db yet. What has ended is on disk only. Logs are cut at Options.MaxLog.
package executor
