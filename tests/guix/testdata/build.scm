;; guix repl -L guix build.scm GO MODULES: prints the derivation of the package, which can be built for real.
;; The toolchain is the directory GO, and the modules are those in the directory MODULES.
(load "debian.scm")
(use-modules (arch packages) (guix derivations) (guix gexp) (guix monads) (guix packages) (guix store) (ice-9 match))

(match (command-line)
  ((_ go modules)
   (let ((package (make-arch #:go (local-file go "go" #:recursive? #t) #:modules modules)))
     (with-store store
       (set-build-options store #:use-substitutes? #f #:print-build-trace #f)
       (run-with-store store
         (mlet* %store-monad ((guile (package->derivation debian-guile "x86_64-linux" #:graft? #f))
                              (drv (package->derivation
                                    (package/inherit package
                                      (arguments (append (list #:guile debian-guile) (package-arguments package))))
                                    "x86_64-linux" #:graft? #f)))
           (begin
             (format #t "~a~%" (derivation-file-name drv))
             (return #t)))
         #:system "x86_64-linux")))))
