package nix

import (
	"encoding/json"
	"testing"

	"arch.network/agent/unit"
)

// TestUnits holds that nix/units.json, from which the module takes all that does not differ between machines, is what package unit
// renders. Of what differs, the file has names between at signs.
func TestUnits(t *testing.T) {
	s := unit.Settings{Bin: "/@bin@", Policy: "/@policy@", TrustRoot: "/@trust@", Key: "/@key@", MemoryMax: "@memory@"}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	type section map[string]any // of properties: a string, or a list of them
	file := map[string]map[string]section{}
	for _, u := range unit.Units(s) {
		file[u.Name] = map[string]section{}
		for _, sec := range u.Sections {
			file[u.Name][sec.Name] = section{}
			for _, p := range sec.Properties {
				if values := u.Properties(sec.Name, p.Name); len(values) > 1 {
					file[u.Name][sec.Name][p.Name] = values
				} else {
					file[u.Name][sec.Name][p.Name] = p.Value
				}
			}
		}
	}
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "nix/units.json", append(text, '\n'))
}
