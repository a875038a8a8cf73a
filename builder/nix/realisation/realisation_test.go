package realisation_test

import (
	"testing"

	"arch.network/attest/digest"
	"arch.network/builder/binarycache"
	"arch.network/builder/nix/realisation"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	// As Nix 2.8 wrote it (nix copy --to file:///…).
	oldName = "realisations/sha256:7a874b52abf1cc74836c3a9e3268b4c3694123b222c46400820169ed0544324b!out.doi"
	oldText = `{"dependentRealisations":{},"id":"sha256:7a874b52abf1cc74836c3a9e3268b4c3694123b222c46400820169ed0544324b!out","outPath":"v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self","signatures":[]}`
	// As the release notes and the manual of Nix 2.35 describe it; no Nix of that version was at hand.
	drv     = "cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv"
	newName = "build-trace-v2/" + drv + "/out.doi"
	newText = `{"outPath":"v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self","signatures":[{"keyName":"cache.example.com-1","sig":"AAEC"}]}`
)

func TestParse(t *testing.T) {
	sum, err := digest.ParseHex("7a874b52abf1cc74836c3a9e3268b4c3694123b222c46400820169ed0544324b")
	if err != nil {
		t.Fatal(err)
	}
	const path = "/nix/store/v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self"
	sigs := []binarycache.Signature{{Name: "cache.example.com-1", Value: []byte{0, 1, 2}}}
	for _, tt := range []struct {
		name, file, text string
		want             *realisation.Realisation
	}{
		{"older", oldName, oldText, &realisation.Realisation{DrvHash: sum, Output: "out", Path: path, Needs: map[string]string{}}},
		{
			"older, signed", oldName,
			`{"id":"sha256:7a874b52abf1cc74836c3a9e3268b4c3694123b222c46400820169ed0544324b!out","outPath":"v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self","signatures":["cache.example.com-1:AAEC"]}`,
			&realisation.Realisation{DrvHash: sum, Output: "out", Path: path, Signatures: sigs},
		},
		{"newer", newName, newText, &realisation.Realisation{Drv: drv, Output: "out", Path: path, Signatures: sigs}},
		{
			"newer, with its key", newName, `{"key":{"drvPath":"` + drv + `","outputName":"out"},"value":` + newText + `}`,
			&realisation.Realisation{Drv: drv, Output: "out", Path: path, Signatures: sigs},
		},
	} {
		got, err := realisation.Parse(tt.file, []byte(tt.text))
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want string }{
		{"another id", oldName, `{"id":"sha256:00!out","outPath":"v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self"}`, `its id is "sha256:00!out"`},
		{"another key", newName, `{"key":{"drvPath":"x.drv","outputName":"out"},"value":` + newText + `}`, `it is of "x.drv" "out"`},
		{"path elsewhere", newName, `{"outPath":"../../etc/passwd"}`, `"/nix/store/../../etc/passwd" is no store path: its last element is not HASH-NAME`},
		{"unknown member", newName, `{"outPath":"v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self","x":1}`, `json: unknown field "x"`},
		{"older in newer", newName, oldText, "it has members of the older layout"},
		{"signature without a name", newName, `{"outPath":"v9fjbhpd30b9p2hg6z39v2c63g1nbwm3-self","signatures":["AAEC"]}`, `read signature "AAEC": it is not NAME:BASE64`},
		{"no layout", "nar/x.doi", newText, "the name is of no known layout"},
		{"no derivation", "build-trace-v2/x/out.doi", newText, `"x" is no derivation`},
		{"output", "build-trace-v2/" + drv + "/../out.doi", newText, `"../out" is no name of an output`},
	} {
		_, err := realisation.Parse(tt.file, []byte(tt.text))
		want := "read realisation " + quote(tt.file) + ": " + tt.want
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, want)
		}
	}
}

func quote(s string) string { return `"` + s + `"` }

// FuzzParse: what is read is within the limits, and reading it again gives the same.
func FuzzParse(f *testing.F) {
	f.Add(oldName, []byte(oldText))
	f.Add(newName, []byte(newText))
	f.Add(newName, []byte(`{"key":{"drvPath":"`+drv+`","outputName":"out"},"value":`+newText+`}`))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r, err := realisation.Parse(name, data)
		if err != nil {
			return
		}
		again, err := realisation.Parse(name, data)
		if err != nil || !cmp.Equal(r, again) {
			t.Errorf("%v, %v", again, err)
		}
		if (r.Drv == "") == r.DrvHash.IsZero() || r.Output == "" || r.Path == "" || len(r.Signatures) > realisation.MaxSignatures {
			t.Errorf("half an entry: %+v", r)
		}
		if r.Drv != "" {
			return
		}
		text, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := realisation.Parse(r.Name(), text); err != nil || !cmp.Equal(r, again, cmpopts.EquateEmpty()) {
			t.Errorf("written and read again: %v, %v", again, err)
		}
	})
}
