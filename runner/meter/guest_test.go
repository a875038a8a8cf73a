package meter_test

import (
	"testing"

	"arch.network/tests/guest"
)

// TestVersion2 runs the tests on real control groups again, on a kernel with version 2 alone.
func TestVersion2(t *testing.T) {
	if guest.Inside() != "" {
		t.Skip("cannot run here: this is the guest already")
	}
	guest.Test(t, guest.UML, ".", "^TestReal")
}
