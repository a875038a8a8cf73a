package runnertest

import (
	"os"
	"path/filepath"
	"strings"

	"arch.network/runner"
)

// devices are the cases of runner.Spec.Devices. They use devices that hold no state.
func devices() []testCase {
	return []testCase{
		{"named devices appear, and no others", func(h *harness) {
			spec := h.spec("devices", "/dev/vendor/first", "/dev/full")
			spec.Commands = append(spec.Commands, h.command("open", "/dev/kmsg", "/dev/vendor/second"))
			spec.Devices = []runner.Device{{Source: "/dev/zero", Target: "/dev/vendor/first"}}
			h.says(spec, "/dev/vendor/first: read ok, write ok", "/dev/full: read ok, write ENOSPC",
				"/dev/kmsg: ENOENT", "/dev/vendor/second: ENOENT")
		}},
		{"permissions of a device", func(h *harness) {
			spec := h.spec("devices", "/dev/one", "/dev/two", "/dev/null")
			spec.Devices = []runner.Device{
				{Source: "/dev/tty", Target: "/dev/one", Permissions: "w"}, // a device of its own number, so that no other permission is mixed in
				{Source: "/dev/null", Target: "/dev/two", Permissions: "rw"},
			}
			result, out := h.run(spec)
			h.ended(result, runner.ReasonExit, 0)
			want := []string{"/dev/one: read ENXIO, write ENXIO", "/dev/two: read ok, write ok", "/dev/null: read ok, write ok"}
			if h.keeps(result, "device-permissions") {
				want[0] = "/dev/one: read EPERM, write ENXIO" // ENXIO comes from the driver of the device: there is no terminal
			}
			h.equal(lines(out), want)
		}},
		{"what is no device, or cannot be one, is refused", func(h *harness) {
			file := filepath.Join(h.tree("file"), "file")
			link := filepath.Join(h.dir(), "link")
			if err := os.Symlink("/dev/zero", link); err != nil {
				h.Fatal(err)
			}
			for want, d := range map[string]runner.Device{
				"not a device":              {Source: file, Target: "/dev/file"},
				"not a device ":             {Source: link, Target: "/dev/link"},
				"no such file or directory": {Source: "/dev/nonexistent"},
				"is taken":                  {Source: "/dev/zero"},
				"is taken ":                 {Source: "/dev/zero", Target: "/dev/shm/zero"},
				"below /dev":                {Source: "/dev/zero", Target: "/etc/zero"},
				"clean path":                {Source: "/dev/zero", Target: "/dev/../etc/zero"},
				"absolute":                  {Source: "dev/zero", Target: "/dev/z"},
				"permissions":               {Source: "/dev/zero", Target: "/dev/z", Permissions: "wr"},
			} {
				spec := h.spec("exit", "0")
				spec.Devices = []runner.Device{d}
				if err := h.refused(spec); !strings.Contains(err.Error(), strings.TrimSpace(want)) {
					h.Errorf("%+v: got %q, want it to contain %q", d, err, want)
				}
			}
		}},
	}
}
