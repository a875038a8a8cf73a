// Package scheduler chooses which of a node's waiting jobs runs next. It is pure: jobs, limits and the time come in as
// arguments, and the same calls give the same choices on every node. It opens nothing, starts nothing and reads no clock.
//
// # Order
//
// Within an owner, the higher priority comes first, always; among equals the one that was pushed first.
//
// Between owners, what was used decides: each owner has a virtual time, which advances by the cost of its jobs divided by
// its weight, and the owner whose time is earliest is next. The cost of a job is the time that it ran for, times the
// largest share of the node that it was promised of any one resource (dominant-resource fairness), or the gas that it used at the
// node's rate if that is more. When a job starts, its owner is charged what its jobs cost on average; when it ends, the
// difference to what it really cost. An owner that had nothing waiting starts at the time that the others have reached, so
// that idleness is not saved up (start-time fair queueing; Goyal, Vin, Cheng: SIGCOMM 1996).
//
// # What waiting is bounded by
//
// A job that is its owner's next, and fits the node, starts at the latest
//
//	Patience + (1 + d) · W
//
// after it became that, where d is the number of owners whose next job was that already, and W the longest time that a
// job may run: after Patience it is due, due jobs come before all others in the order in which they became next, and nothing
// is started past a due job. Time in which the owner's own limit stops it does not count. The same holds sooner for a job
// whose turn it is by virtual time but which does not fit yet: others pass it for Backfill at most.
// There is no bound for a job while others of its owner with a higher priority keep coming: that is what priority means.
//
// # Bounds
//
// The queue holds at most Limits.Max jobs, and Limits.PerOwner of one owner; what does not fit is an *agent.FullError. A choice
// looks at no more than 64 owners.
package scheduler
