# Filled by scripts/release.sh, which writes VERSION and, for each machine's archive, where it is and its sha256.
class Lictor < Formula
  desc "Sidecar proxy for services on Consul"
  homepage "https://github.com/lictor-proxy/lictor"
  version "@VERSION@"
  license "Apache-2.0"
  depends_on :linux
  @ARCHIVES@

  def install
    bin.install "lictor"
    man1.install "lictor.1"
    bash_completion.install "completions/lictor.bash" => "lictor"
    zsh_completion.install "completions/lictor.zsh" => "_lictor"
    fish_completion.install "completions/lictor.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/lictor --version")
  end
end
