package egress

import (
	"fmt"
	"strings"

	"arch.network/runner"
)

// evidence says in a sentence what was refused.
func evidence(t runner.Traffic) string {
	list := t.RefusedTo
	more := ""
	if len(list) > 4 {
		list, more = list[:4], ", and others"
	}
	return fmt.Sprintf("%d attempts to reach what is not allowed, to %q%s; none is expected", t.Refused, strings.Join(list, " "), more)
}
