package identity

import "testing"

func BenchmarkVerify(b *testing.B) {
	message := make([]byte, 1500)
	for _, alg := range algorithms {
		k := mustKey(b, alg, 1)
		sig := mustSign(b, k, message)
		b.Run(string(alg), func(b *testing.B) {
			for b.Loop() {
				if err := k.Public().Verify(message, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, name := range []string{"ed", "rsa"} {
		k, err := ParseOpenPGP(testdata(b, name+".asc"))
		if err != nil {
			b.Fatal(err)
		}
		sig := testdata(b, name+".sig")
		b.Run("openpgp-"+name, func(b *testing.B) {
			for b.Loop() {
				if err := k.Verify(gpgMessage, sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParsePublicKey(b *testing.B) {
	for _, alg := range algorithms {
		name := mustKey(b, alg, 1).Public().String()
		b.Run(string(alg), func(b *testing.B) {
			for b.Loop() {
				if _, err := ParsePublicKey(name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
