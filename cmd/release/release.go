// Package release says which arch the programs are. It is in the source, not given to the linker, so that the same source gives the same programs,
// whoever builds them and from whatever copy. It reads nothing but the running program.
package release

import "runtime/debug"

// Version is the release that this source tree becomes.
const Version = "0.1.0"

// Commit returns the commit that the program was built from, with "+dirty" behind it if files were changed; empty: it does not know. Packages and
// attested builds do not know it, on purpose: they are made from the source alone, and equal sources of two commits make equal programs.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if commit == "" {
		return ""
	}
	return commit + dirty
}

// String is the version, and the commit if it is known.
func String() string {
	if c := Commit(); c != "" {
		return Version + " (" + c + ")"
	}
	return Version
}
