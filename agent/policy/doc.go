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
// # Conditions, and why they are no expressions
//
// spec.conditions holds jobs to facts in the form of placement constraints: key, operator, value. Cedar and CEL were weighed for
// it, and are not used: a comparison of three parts can say which fact failed, and what it would have to be, which is what
// whoever was refused needs, while an expression only says no; it can be compared in Diff, documented and checked by the schema; it
// costs nothing until there is one; prices and loads are numbers with fractions, which Cedar has only as texts of four places; and a Cedar policy that fails
// to evaluate is skipped, so that a typing error in a prohibition allows. Several conditions are a conjunction, lists in
// one are a disjunction; what needs more than that needs more than one policy.
//
// It never writes a policy, fetches nothing, and judges no job: that is admission's.
package policy
