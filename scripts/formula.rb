# For scripts/packages.sh, as there is no Homebrew: `formula.rb DIST PREFIX` reads DIST/lictor.rb as Homebrew does, as far as that formula
# goes, unpacks the archive that it names if its sha256 is right, installs it under PREFIX, and runs its test.
require "digest"
require "fileutils"

dist, PREFIX = ARGV
abort "usage: formula.rb DIST PREFIX" unless PREFIX
ARCH = RbConfig::CONFIG["host_cpu"] == "x86_64" ? :on_intel : :on_arm

class Place < Struct.new(:path)
  def to_s = path

  def install(what)
    source, name = what.is_a?(Hash) ? what.first : [what, File.basename(what)]
    FileUtils.mkdir_p(path)
    FileUtils.cp(source, File.join(path, name)) # raises when it is not in the archive
  end
end

class Formula
  SAID = {}
  class << self
    [:desc, :homepage, :version, :license, :depends_on, :url, :sha256].each { |word| define_method(word) { |value| SAID[word] = value } }
    [:on_intel, :on_arm].each { |word| define_method(word) { |&block| class_eval(&block) if word == ARCH } }
    def test(&block) = SAID[:test] = block
  end
  [:bin, :man1, :bash_completion, :zsh_completion, :fish_completion].each { |word| define_method(word) { Place.new(File.join(PREFIX, word.to_s)) } }
  def version = SAID[:version]
  def shell_output(command) = `#{command}`
  def assert_match(part, whole) = whole.include?(part) || abort("#{part} is not in #{whole}")
end

load File.join(dist, "lictor.rb")
said = Formula::SAID
archive = File.join(dist, File.basename(said.fetch(:url)))
abort "#{archive} has another sha256" unless Digest::SHA256.file(archive).hexdigest == said.fetch(:sha256)
system("tar", "--extract", "--file", archive, "--directory", dist, exception: true)
formula = Lictor.new
Dir.chdir(archive.delete_suffix(".tar.gz")) { formula.install }
formula.instance_eval(&said.fetch(:test))
puts "#{said[:url]}: installed, and its test passed"
