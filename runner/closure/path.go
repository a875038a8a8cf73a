package closure

import (
	"slices"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// storeOf returns the directory of the store that a path is in. ok is false if it is no store path.
func storeOf(p string) (dir string, ok bool) {
	at, err := storepath.Parse(p)
	return at.Dir, err == nil
}

// selfCertified reports whether the name of a store path is a hash of its own content. refs are all references; flat is the hash of its bytes
// if it is a file that is not executable, zero otherwise.
func selfCertified(p string, nar, flat digest.SHA256, refs []string) bool {
	at, err := storepath.Parse(p)
	if err != nil || slices.Contains(refs, p) { // with references to itself, the hash is of something else
		return false
	}
	is := func(named storepath.Path, err error) bool { return err == nil && named == at }
	switch {
	case is(storepath.Source(at.Dir, at.Name, nar, refs, false)):
		return true
	case flat.IsZero():
		return false
	case is(storepath.Text(at.Dir, at.Name, flat, refs)):
		return true
	}
	return len(refs) == 0 && is(storepath.Fixed(at.Dir, at.Name, storepath.Flat, "sha256", flat.Hex()))
}
