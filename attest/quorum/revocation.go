package quorum

import (
	"fmt"
	"strings"
	"time"

	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// revocation takes a key or a principal out.
type revocation struct {
	key, principal string
	since          time.Time // zero: no bound by time
	index          *int64    // nil: no bound by index
	reason         string
}

// newRevocation reads the document's form. A time that cannot be read is no bound: the revocation then spares nothing.
func newRevocation(v manifest.Revocation) revocation {
	r := revocation{key: v.Key, principal: v.Principal, reason: v.Reason}
	since, ok, err := v.SinceTime()
	if err != nil {
		return r
	}
	if ok {
		r.since = since
	}
	if v.SinceIndex != nil {
		index := *v.SinceIndex
		r.index = &index
	}
	return r
}

// matches reports whether the revocation is of p or of k, which may be named by its ID as well ("sha256:" and 64 hexadecimal digits),
// as signatures of ML-DSA-65 keys name theirs.
func (v revocation) matches(p *principal, k identity.PublicKey) bool {
	return v.principal != "" && v.principal == p.name || v.key != "" && (v.key == k.String() || v.key == k.ID().String())
}

// begun reports whether the revocation holds at a time. One that is bounded by an index, or by nothing, always does.
func (v revocation) begun(at time.Time) bool {
	return v.index != nil || v.since.IsZero() || !at.Before(v.since)
}

// spares reports whether a signature at this position of a ledger is older than every bound.
func (v revocation) spares(pos Position) bool {
	bounded := v.index != nil || !v.since.IsZero()
	before := v.since.IsZero() || !pos.Time.IsZero() && pos.Time.Before(v.since)
	return bounded && before && (v.index == nil || pos.Index >= 0 && pos.Index < *v.index)
}

// why completes "it is revoked".
func (v revocation) why() string {
	var b strings.Builder
	if !v.since.IsZero() {
		fmt.Fprintf(&b, " since %s", instant(v.since))
	}
	if v.index != nil {
		fmt.Fprintf(&b, " from ledger index %d on", *v.index)
	}
	if v.reason != "" {
		fmt.Fprintf(&b, " (%q)", v.reason)
	}
	return b.String()
}
