package systemd

import (
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestHasEnded(t *testing.T) {
	state := func(s string) map[string]dbus.Variant {
		return map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(s)}
	}
	since := func(s string, at uint64) map[string]dbus.Variant {
		changed := state(s)
		changed["InactiveEnterTimestampMonotonic"] = dbus.MakeVariant(at)
		return changed
	}
	for _, tt := range []struct {
		name    string
		changed map[string]dbus.Variant
		want    bool
	}{
		{"runs", since("active", 0), false},
		{"starts", since("activating", 0), false},
		{"was loaded, and never ran", since("inactive", 0), false},
		{"ended", since("inactive", 5), true},
		{"failed", since("failed", 5), true},
		{"ended, and does not say when", state("inactive"), true},
		{"something else changed", map[string]dbus.Variant{"MemoryMax": dbus.MakeVariant(uint64(1))}, false},
	} {
		if got := hasEnded(tt.changed); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
