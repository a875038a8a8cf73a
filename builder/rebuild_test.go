package builder_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/source"
)

// travel writes a receipt and reads it elsewhere.
func travel(t *testing.T, r *attest.Receipt) *attest.Receipt {
	t.Helper()
	var buf bytes.Buffer
	if _, err := r.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	got, err := attest.ReadReceipt(&buf)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// rebuild opens the claim of r and rebuilds it with nothing but what r carries.
func (w *world) rebuild(t *testing.T, r *attest.Receipt, originals map[string]string) (*builder.Rebuild, error) {
	t.Helper()
	claim, err := builder.OpenClaim(r)
	if err != nil {
		return nil, err
	}
	carried, err := r.Carried()
	if err != nil {
		t.Fatal(err)
	}
	w.fetch.Carried = carried
	return claim, w.builder.Rebuild(t.Context(), claim, originals)
}

func TestRebuildFromReceiptAlone(t *testing.T) {
	t.Parallel()
	author, base := newWorld(t), workbench(t)
	made := author.mustBuild(t, varied(1), base)
	key := newSigner(t)
	receipt, err := author.builder.Attest(t.Context(), made, key, testVersion)
	if err != nil {
		t.Fatal(err)
	}

	third := newWorld(t)
	got := travel(t, receipt)
	r, err := third.rebuild(t, got, nil)
	if err != nil || !r.Reproduced() {
		t.Fatalf("%v, %+v", err, r.Negative)
	}
	otherKey := newSigner(t)
	cosigned, err := third.builder.Sign(t.Context(), r, otherKey, testVersion)
	if err != nil {
		t.Fatal(err)
	}
	if claimBytes(t, cosigned) != claimBytes(t, receipt) {
		t.Error("the co-signed claim is another one")
	}
	signed := cosigned.Claims[0].Verified([]identity.PublicKey{key.Public(), otherKey.Public()})
	if len(signed) != 2 {
		t.Errorf("%d keys have signed the claim, want 2", len(signed))
	}
	p := provenance(t, cosigned)
	if v, err := p.Variations(); err != nil || !v.Once {
		t.Errorf("provenance of a rebuild: %+v, %v", v, err)
	}
	if len(cosigned.Sources) != 2 {
		t.Errorf("the rebuilder's receipt carries %d sources", len(cosigned.Sources))
	}
	// A rebuild is no build of one's own: the store remembers nothing of it, but its log is kept.
	again, err := third.rebuild(t, got, nil)
	if err != nil || !again.Reproduced() {
		t.Fatalf("%v, %+v", err, again.Negative)
	}
	if logs, _ := filepath.Glob(filepath.Join(third.dir, "logs", "*.rebuild.log")); len(logs) != 1 {
		t.Errorf("logs: %q", logs)
	}
}

func TestRebuildOfflineFromArchive(t *testing.T) {
	t.Parallel()
	author, base := newWorld(t), workbench(t)
	doc := demo(step("cat", "/build/src", out))
	made := author.mustBuild(t, doc, base)
	archive := filepath.Join(author.dir, "archive")
	if err := author.fetch.Export(t.Context(), doc.Spec.Inputs, base, archive); err != nil {
		t.Fatal(err)
	}
	receipt := travel(t, author.attest(t, made))
	receipt.Sources = nil

	third := newWorld(t)
	r, err := third.rebuild(t, receipt, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &attest.Negative{
		State: attest.InputsMissing, By: attest.Builder{ID: attest.BuilderHermetic}, Retry: true, Claim: receipt.Claims[0].ID(),
		Missing: []string{"tool (" + made.Manifest.Spec.Inputs[0].Ref.String() + ")", "src (" + made.Manifest.Spec.Inputs[1].Ref.String() + ")"},
	}
	checkNegative(t, third, r, want, "2 inputs are missing: ")
	if _, ok := errors.AsType[*source.MissingError](r.Cause); !ok {
		t.Errorf("cause is %v", r.Cause)
	}
	third.fetch.Archives = []string{archive}
	if r, err = third.rebuild(t, receipt, nil); err != nil || !r.Reproduced() {
		t.Errorf("with the archive: %v, %+v", err, r.Negative)
	}
}

// checkNegative compares a negative result, but for its cause and time, and what comes of signing it.
func checkNegative(t *testing.T, w *world, r *builder.Rebuild, want *attest.Negative, cause string) {
	t.Helper()
	if r.Negative == nil {
		t.Fatal("it was reproduced")
	}
	if !strings.Contains(r.Negative.Cause, cause) {
		t.Errorf("cause %q does not tell of %q", r.Negative.Cause, cause)
	}
	if _, err := time.Parse(time.RFC3339, r.Negative.Tried); err != nil {
		t.Error(err)
	}
	got := *r.Negative
	got.Cause, got.Tried, got.Differences, got.Total = "", "", nil, 0
	if diff := cmp.Diff(want, &got); diff != "" {
		t.Errorf("negative result (-want +got):\n%s", diff)
	}
	key := newSigner(t)
	receipt, err := w.builder.Sign(t.Context(), r, key, testVersion)
	if err != nil {
		t.Fatal(err)
	}
	receipt = travel(t, receipt)
	if len(receipt.Negatives) != 1 || len(receipt.Claims) != 0 || len(receipt.Negatives[0].Verified([]identity.PublicKey{key.Public()})) != 1 {
		t.Fatalf("the receipt is no signed negative result alone: %+v", receipt)
	}
	stmt, err := attest.ParseStatement(receipt.Negatives[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := stmt.Negative()
	if err != nil {
		t.Fatal(err)
	}
	if signed.State != want.State || signed.Claim != want.Claim || signed.By.Version["arch"] != "test" {
		t.Errorf("signed: %+v", signed)
	}
	if diff := cmp.Diff(r.Subject.Subject, stmt.Subject); diff != "" {
		t.Errorf("subjects (-claim +negative):\n%s", diff)
	}
}

func TestRebuildDiffers(t *testing.T) {
	t.Parallel()
	author, base := newWorld(t), workbench(t)
	doc := demo(step("leak", "random", out), step("print", "/build/same", "same"))
	doc.Spec.Outputs = append(doc.Spec.Outputs, manifest.BuildOutput{Name: "same", Path: "/build/same", Type: manifest.OutputFile})
	made := author.mustBuild(t, doc, base)
	result := filepath.Join(author.dir, "result")
	if _, err := author.builder.Deliver(t.Context(), made, result); err != nil {
		t.Fatal(err)
	}
	third := newWorld(t)
	originals := map[string]string{"out": filepath.Join(result, "out"), "same": filepath.Join(result, "same")}
	receipt := travel(t, author.attest(t, made))
	r, err := third.rebuild(t, receipt, originals)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := made.Record.Outputs[0], r.Made.Record.Outputs[0]
	checkNegative(t, third, r, &attest.Negative{
		State: attest.Differs, By: attest.Builder{ID: attest.BuilderHermetic}, Claim: receipt.Claims[0].ID(),
		Found: []attest.Mismatch{{Name: "out", Expected: ours.File, Found: theirs.File}, {Name: "out#nar", Expected: ours.NAR, Found: theirs.NAR}},
	}, "2 of 4 digests of outputs are not as claimed")
	if len(r.Diffs) != 1 || r.Diffs["out"] == nil || r.Negative.Total == 0 || len(r.Negative.Differences) == 0 {
		t.Errorf("the difference is not explained: %+v, %+v", r.Diffs, r.Negative)
	}
	// Without the originals, or with useless ones, the result is the same, only less explained.
	for _, originals := range []map[string]string{nil, {"out": filepath.Join(result, "gone")}} {
		if r, err = third.rebuild(t, receipt, originals); err != nil || r.Negative == nil || r.Negative.State != attest.Differs {
			t.Errorf("originals %v: %v, %+v", originals, err, r)
		}
	}
}

func TestRebuildFails(t *testing.T) {
	t.Parallel()
	author, base := newWorld(t), workbench(t)
	doc := demo(step("print", out, "x"))
	made := author.mustBuild(t, doc, base)
	for _, c := range []struct {
		name  string
		steps [][]string
		typ   manifest.OutputType
		cause string
	}{
		{"step", [][]string{step("say", "good", "bye")}, manifest.OutputFile, `exit status 1; its log ends with "tool: as it was told"`},
		{"no output", [][]string{step("print", "/build/x", "x")}, manifest.OutputFile, "not-found: output out"},
		{"wrong type", [][]string{step("mkdir", out)}, manifest.OutputFile, `/build/out is a directory, but its type is "file"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			lie := *made // a claim that this never gave
			body := *made.Manifest
			lie.Manifest = &body
			lie.Manifest.Spec.Steps = demo(c.steps...).Spec.Steps
			third := newWorld(t)
			receipt := travel(t, author.attest(t, &lie))
			r, err := third.rebuild(t, receipt, nil)
			if err != nil {
				t.Fatal(err)
			}
			checkNegative(t, third, r, &attest.Negative{
				State: attest.FailedToBuild, By: attest.Builder{ID: attest.BuilderHermetic}, Retry: true, Claim: receipt.Claims[0].ID(),
			}, c.cause)
			if _, ok := asBuildError(r.Cause); !ok {
				t.Errorf("cause is %v", r.Cause)
			}
		})
	}
}

// A claim that says other things than its own manifest gives is refused before anything is built.
func TestDishonestClaims(t *testing.T) {
	t.Parallel()
	author, base := newWorld(t), workbench(t)
	made := author.mustBuild(t, demo(step("cat", "/build/src", out)), base)
	extra := attest.ResourceDescriptor{Name: "more", URI: "tree:more", Digest: map[string]string{"sha256": digest.Of(nil).Hex()}}
	for _, c := range []struct {
		name string
		lie  func(m *builder.Made)
		err  string
	}{
		{"a dependency too many", func(m *builder.Made) { m.Dependencies = append(slices.Clone(m.Dependencies), extra) }, "other dependencies"},
		{"a dependency too few", func(m *builder.Made) { m.Dependencies = m.Dependencies[1:] }, "other dependencies"},
		{"another name", func(m *builder.Made) { m.Record.Outputs[0].Name = "outer" }, "other outputs"},
		{"a form too many", func(m *builder.Made) { m.Record.Outputs[0].OCI = digest.Of(nil) }, "other outputs"},
		{"a form too few", func(m *builder.Made) { m.Record.Outputs[0].NAR = digest.SHA256{} }, "other outputs"},
		{"a file as a tree", func(m *builder.Made) {
			m.Record.Outputs[0].Tar, m.Record.Outputs[0].File = m.Record.Outputs[0].File, digest.SHA256{}
		}, "other outputs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lie := *made
			lie.Record.Outputs = slices.Clone(made.Record.Outputs)
			c.lie(&lie)
			third := newWorld(t)
			r, err := third.rebuild(t, travel(t, author.attest(t, &lie)), nil)
			e, ok := errors.AsType[*builder.ClaimError](err)
			if !ok || !strings.Contains(e.Error(), c.err) {
				t.Fatalf("got %v, %+v; want a ClaimError of %s", err, r, c.err)
			}
			if logs, _ := os.ReadDir(filepath.Join(third.dir, "logs")); len(logs) > 0 {
				t.Error("it was built")
			}
		})
	}
}

func TestOpenClaimRefuses(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	good := w.attest(t, w.mustBuild(t, demo(step("print", out, "x")), base))
	second := w.attest(t, w.mustBuild(t, demo(step("print", out, "y")), base))
	two := travel(t, good)
	two.Merge(second)
	for _, c := range []struct {
		name string
		r    *attest.Receipt
		err  string
	}{
		{"no claim", &attest.Receipt{}, "holds no build claim"},
		{"two claims", two, "2 different claims"},
		{"another normalizer", edited(t, good, `"version":"1"`, `"version":"2"`), `the normalizer "arch 2", this program has "arch 1"`},
		{"another way to build", edited(t, good, attest.BuildType, attest.BuildType+"0"), "build type"},
		{"no statement", edited(t, good, `"predicateType"`, `"predicateTypo"`), "no build claim"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := builder.OpenClaim(c.r); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
}

// edited replaces text in the claim of a receipt.
func edited(t *testing.T, r *attest.Receipt, from, to string) *attest.Receipt {
	t.Helper()
	if !bytes.Contains(r.Claims[0].Payload, []byte(from)) {
		t.Fatalf("the claim holds no %s", from)
	}
	payload := bytes.ReplaceAll(r.Claims[0].Payload, []byte(from), []byte(to))
	env, err := dsse.Sign(t.Context(), attest.PayloadType, payload, newSigner(t))
	if err != nil {
		t.Fatal(err)
	}
	out := &attest.Receipt{}
	out.Add(env)
	return out
}

// What travels within a receipt is bounded: the inputs that fit, in the order of the manifest.
func TestCarriedSourcesAreBounded(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	for name, size := range map[string]int{"big": builder.MaxCarried, "half": builder.MaxCarried / 2, "other": builder.MaxCarried / 2} {
		if err := os.WriteFile(filepath.Join(base, name), bytes.Repeat([]byte(name), size/len(name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	doc := demo(step("print", out, "x"))
	for _, name := range []string{"big", "half", "other", "notes"} {
		doc.Spec.Inputs = append(doc.Spec.Inputs, manifest.BuildInput{Name: name, Path: name, Mount: "/" + name})
	}
	var got []string
	for _, s := range w.attest(t, w.mustBuild(t, doc, base)).Sources {
		got = append(got, s.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"half", "notes", "src", "tool"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReceiptIsRemembered(t *testing.T) {
	t.Parallel()
	w, base := newWorld(t), workbench(t)
	doc, key := demo(step("print", out, "x")), newSigner(t)
	made := w.mustBuild(t, doc, base)
	if _, ok := w.builder.RecallReceipt(made, key.Public()); ok {
		t.Error("a receipt was recalled before there was one")
	}
	r, err := w.builder.Attest(t.Context(), made, key, testVersion)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.builder.RememberReceipt(t.Context(), made, key.Public(), r); err != nil {
		t.Fatal(err)
	}
	if got, ok := w.builder.RecallReceipt(w.mustBuild(t, doc, base), key.Public()); !ok || claimBytes(t, got) != claimBytes(t, r) {
		t.Error("the receipt was not recalled")
	}
	if _, ok := w.builder.RecallReceipt(made, newSigner(t).Public()); ok {
		t.Error("a receipt was recalled for another key")
	}
	varied := w.mustBuild(t, doc, base, builder.FactorUID) // the same build, of which there is more to tell now
	if _, ok := w.builder.RecallReceipt(varied, key.Public()); ok {
		t.Error("the receipt of an older record was recalled")
	}
	var log struct {
		Name   string
		Digest map[string]string
	}
	for _, b := range provenance(t, r).RunDetails.Byproducts {
		if b.Name == attest.ByproductLog {
			data, _ := json.Marshal(b)
			if err := json.Unmarshal(data, &log); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "logs", made.ID.Hex()+".log"))
	if err != nil || log.Digest["sha256"] != digest.Of(text).Hex() {
		t.Errorf("provenance names the log %v, which is %s (%v)", log, digest.Of(text), err)
	}
}
