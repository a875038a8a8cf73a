// Package policy keeps the trust root and the policy that a node judges by.
//
// A Keeper reads both from files that it cannot write, verifies them before use and whenever they change, and hands out an
// Active: the two as they were verified together. A policy that is unsigned, signed by too few, older than one that was in force, one that
// leaves versions out, one that has expired or was written for another trust root is refused with a *RefusedError, which
// is reported, and the last good one stays in force, until it has expired and its own offlineGrace is over. Then nothing new runs.
//
// A floor in the state directory outlives restarts: the last versions in force, and the newest time that a signature
// vouches for. Restoring old files, or setting the clock back, brings nothing old into force again.
//
// It never writes a policy, fetches nothing, and judges no job: that is admission's.
package policy
