package quorum

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"github.com/google/go-cmp/cmp"
)

// certificate returns an OpenPGP certificate and its name.
func certificate(t *testing.T, file string) (name, armored string) {
	t.Helper()
	data, err := os.ReadFile("../identity/testdata/openpgp/" + file)
	if err != nil {
		t.Fatal(err)
	}
	k, err := identity.ParseOpenPGP(data)
	if err != nil {
		t.Fatal(err)
	}
	return k.String(), string(data)
}

func TestCompileRefuses(t *testing.T) {
	edName, edCert := certificate(t, "ed.asc")
	_, rsaCert := certificate(t, "rsa.asc")
	weak := "did:key:z6MkeTG3bFFSLYVU7VqhgZxqr6YzpaGrQtFMh1uvqGy1vDnP" // decodes to zeros: a point of order 4
	chain := func(n int) func(*manifest.TrustRoot) {
		return func(r *manifest.TrustRoot) {
			for i := range n {
				r.Spec.Groups[fmt.Sprintf("g%d", i)] = of(1, fmt.Sprintf("g%d", i+1))
			}
			r.Spec.Groups[fmt.Sprintf("g%d", n)] = of(1, "alice")
			r.Spec.Roles["job"] = of(1, "g0")
		}
	}
	for _, c := range []struct {
		name   string
		change func(r *manifest.TrustRoot)
		want   string
	}{
		{"good", func(*manifest.TrustRoot) {}, ""},
		{"threshold 0", func(r *manifest.TrustRoot) { r.Spec.Roles["job"] = of(0, "alice") }, "spec.roles.job.threshold: 0 is less than 1"},
		{"threshold negative", func(r *manifest.TrustRoot) { r.Spec.Groups["left"] = of(-1, "alice") }, "spec.groups.left.threshold: -1 is less than 1"},
		{"threshold beyond the members", func(r *manifest.TrustRoot) { r.Spec.Roles["job"] = of(2, "alice") }, "spec.roles.job.threshold: 2 of 1 members can never agree"},
		{"no governance", func(r *manifest.TrustRoot) { delete(r.Spec.Roles, "governance") }, "spec.roles: the role governance is missing"},
		{"unknown role", func(r *manifest.TrustRoot) { r.Spec.Roles["jobs"] = of(1, "alice") }, `spec.roles.jobs: "jobs" is no role`},
		{"version 0", func(r *manifest.TrustRoot) { r.Spec.Version = 0 }, "spec.version: 0 is less than 1"},
		{"never expires", func(r *manifest.TrustRoot) { r.Metadata.Expires = "" }, "metadata.expires: missing; a trust root that never expires could be kept back for ever"},
		{"unknown member", func(r *manifest.TrustRoot) { r.Spec.Roles["job"] = of(1, "alcie") }, `spec.roles.job.of[0]: "alcie" is neither a principal nor a group`},
		{"member twice", func(r *manifest.TrustRoot) { r.Spec.Roles["job"] = of(2, "alice", "alice") }, "spec.roles.job.of[1]: alice is listed twice"},
		{"member twice through a group", func(r *manifest.TrustRoot) { r.Spec.Roles["job"] = of(2, "alice", "left") }, "role job: alice is in it twice, the second time through job > left"},
		{"group twice", func(r *manifest.TrustRoot) { r.Spec.Roles["job"] = of(2, "both", "right") }, "role job: right is in it twice, the second time through job"},
		{"group in itself", func(r *manifest.TrustRoot) {
			r.Spec.Groups["left"] = of(1, "both")
			r.Spec.Roles["job"] = of(1, "left")
		}, "role job: group left contains itself: job > left > both > left"},
		{"group directly in itself", func(r *manifest.TrustRoot) {
			r.Spec.Groups["left"] = of(1, "left")
			r.Spec.Roles["job"] = of(1, "left")
		}, "role job: group left contains itself: job > left > left"},
		{"deep enough", chain(MaxDepth - 2), ""},
		{"too deep", chain(MaxDepth - 1), "role job: groups are nested more than 8 deep: job > g0 > g1 > g2 > g3 > g4 > g5 > g6 > g7"},
		{"too few operators", func(r *manifest.TrustRoot) {
			r.Spec.Roles["job"] = manifest.TrustGroup{Threshold: 2, Operators: 2, Of: []string{"alice", "bob"}}
		}, "role job: job can never have 2 distinct operators: its members have 1"},
		{"too few operators in a group", func(r *manifest.TrustRoot) {
			r.Spec.Groups["right"] = manifest.TrustGroup{Threshold: 1, Operators: 3, Of: []string{"dave", "erin"}}
			r.Spec.Roles["job"] = of(1, "right", "alice")
		}, "role job: right can never have 3 distinct operators: its members have 2"},
		{"two principals of one name", func(r *manifest.TrustRoot) { r.Spec.Principals[1].Name = "alice" }, `spec.principals[1].name: two principals are named "alice"`},
		{"group with a principal's name", func(r *manifest.TrustRoot) { r.Spec.Groups["alice"] = of(1, "bob") }, `spec.groups.alice: a principal is named "alice", too`},
		{"key of two principals", func(r *manifest.TrustRoot) { r.Spec.Principals[1].Keys = r.Spec.Principals[0].Keys }, "belongs to alice already"},
		{"key twice", func(r *manifest.TrustRoot) { p := &r.Spec.Principals[0]; p.Keys = append(p.Keys, p.Keys[0]) }, "is listed twice"},
		{"key by its hash", func(r *manifest.TrustRoot) {
			r.Spec.Principals[0].Keys[0] = ed(t, "alice").Public().ID().String()
		}, "is a hash of a key"},
		{"weak key", func(r *manifest.TrustRoot) { r.Spec.Principals[0].Keys[0] = weak }, "small order"},
		{"require some", func(r *manifest.TrustRoot) { r.Spec.Principals[0].Require = "some" }, `"some" is not allowed here`},
		{"OpenPGP", func(r *manifest.TrustRoot) {
			p := &r.Spec.Principals[0]
			p.Keys, p.Certificates = append(p.Keys, edName), map[string]string{edName: edCert}
		}, ""},
		{"OpenPGP without certificate", func(r *manifest.TrustRoot) {
			r.Spec.Principals[0].Keys[0] = edName
		}, "has no certificate"},
		{"another certificate", func(r *manifest.TrustRoot) {
			p := &r.Spec.Principals[0]
			p.Keys, p.Certificates = []string{edName}, map[string]string{edName: rsaCert}
		}, "the certificate under " + edName + " is that of openpgp:3EC98B6ACCFB92E4EB18B983A42B0438474E2666"},
		{"certificate of no key", func(r *manifest.TrustRoot) {
			r.Spec.Principals[0].Certificates = map[string]string{edName: edCert}
		}, "is not one of the principal's OpenPGP keys"},
		{"revocation of nothing", func(r *manifest.TrustRoot) { r.Spec.Revocations = []manifest.Revocation{{}} }, "spec.revocations[0]: exactly one of key and principal is set"},
		{"revocation of both", func(r *manifest.TrustRoot) {
			r.Spec.Revocations = []manifest.Revocation{{Principal: "alice", Key: ed(t, "alice").Public().String()}}
		}, "spec.revocations[0]: exactly one of key and principal is set"},
		{"revocation of a stranger", func(r *manifest.TrustRoot) {
			r.Spec.Revocations = []manifest.Revocation{{Key: ed(t, "mallory").Public().String()}}
		}, "no principal has"},
		{"revocation of a group", func(r *manifest.TrustRoot) { r.Spec.Revocations = []manifest.Revocation{{Principal: "left"}} }, `there is no principal "left"`},
		{"revocation on no day", func(r *manifest.TrustRoot) {
			r.Spec.Revocations = []manifest.Revocation{{Principal: "alice", Since: "2026-02-30T00:00:00Z"}}
		}, `"2026-02-30T00:00:00Z" is no time of the calendar`},
		{"governance revoked away", func(r *manifest.TrustRoot) {
			r.Spec.Revocations = []manifest.Revocation{{Principal: "alice", Since: "2027-01-01T00:00:00Z"}, {Principal: "bob"}}
		}, "role governance: without those who are revoked, governance can never reach its threshold: only 1 of the 2 members it needs can agree"},
		{"another role revoked away", func(r *manifest.TrustRoot) { r.Spec.Revocations = []manifest.Revocation{{Principal: "dave"}} }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := rootFor(t, of(1, "dave"))
			c.change(root)
			_, err := Compile(root)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("compiled")
			}
			if got := err.Error(); !strings.Contains(got, c.want) || !strings.HasPrefix(got, `trust root "test": `) {
				t.Errorf("error %q, not %q", got, c.want)
			}
			if d := Evaluate(root, "job", pub(t, "dave"), day(10), Options{}); d.OK {
				t.Errorf("an unusable root agreed: %v", d)
			}
		})
	}
}

// TestOneKeyUnderTwoNames gives the bare key in an OpenPGP certificate a did:key, too.
func TestOneKeyUnderTwoNames(t *testing.T) {
	name, cert := certificate(t, "p256.asc")
	const bare = "did:key:zDnaeRamBTswfpHfCKf6humDVsUz23UknSUN6b77VugH47xWv"
	for _, c := range []struct {
		name string
		keys [2][]string
		want string
	}{
		{"two principals", [2][]string{{name}, {bare}}, "principal bob: key " + bare + " belongs to alice already"},
		{"one principal", [2][]string{{name, bare}, nil}, "principal alice: key " + bare + " is there twice under different names"},
	} {
		root := rootFor(t, of(1, "dave"))
		for i, keys := range c.keys {
			if keys != nil {
				root.Spec.Principals[i].Keys = keys
			}
		}
		root.Spec.Principals[0].Certificates = map[string]string{name: cert}
		_, err := Compile(root)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHints(t *testing.T) {
	root := rootFor(t, of(2, "alice", "left"))
	_, err := Compile(root)
	const want = "whoever is in a role twice would count twice; make the groups of a role disjoint"
	if diff := cmp.Diff(want, err.(*RootError).Hint()); diff != "" {
		t.Errorf("hint (-want +got):\n%s", diff)
	}
}

// TestYAML reads a root as its author writes it, and decides by it.
func TestYAML(t *testing.T) {
	alice, bob := ed(t, "alice").Public(), ed(t, "bob").Public()
	name, cert := certificate(t, "ed.asc")
	src := fmt.Sprintf(`apiVersion: arch.network/v1
kind: TrustRoot
metadata: {name: example, expires: "2026-02-01T00:00:00Z"}
spec:
  version: 1
  offlineGrace: 3d
  principals:
    - {name: alice, operator: north, keys: ["%s"]}
    - {name: bob, keys: ["%s"]}
    - name: carol
      keys: ["%s"]
      certificates:
        "%s": |
%s
  groups:
    ops: {threshold: 1, of: [bob, carol]}
  roles:
    governance: {threshold: 2, of: [alice, bob]}
    rebuilder: {threshold: 2, operators: 2, of: [alice, ops]}
  revocations:
    - {key: "%s", since: "2026-01-20T00:00:00Z", reason: lost}
    `, alice, bob, name, name, indent(cert), name)
	doc, err := manifest.ReadYAML([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compile(doc.(*manifest.TrustRoot))
	if err != nil {
		t.Fatal(err)
	}
	carol := r.Keys("rebuilder")[2]
	if carol.String() != name {
		t.Fatalf("key %v", carol)
	}
	for at, want := range map[int]bool{19: true, 20: false} {
		d := r.Evaluate("rebuilder", []identity.PublicKey{alice, carol}, day(at), Options{})
		if d.OK != want {
			t.Errorf("on day %d: %v", at, d)
		}
	}
}

func indent(text string) string {
	return "          " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n          ")
}
